"""The part of `prepare` that runs in worker processes: read, draw, encode, write, hash.

What an image becomes depends on its example and the recipe alone, so the number of workers and the
order in which they finish change no byte. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import pickle
import random
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import batched, islice
from pathlib import Path
from typing import Any

from PIL import Image

from clipalign.datasets.base import Dataset, Example
from clipalign.errors import ClipAlignError, DataError
from clipalign.files import storage_errors
from clipalign.tasks.base import PreparedRow, Task
