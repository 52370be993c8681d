"""The contract reaches third parties through pytest: an option, and nothing to pay without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

UPSIDE_DOWN = '''
from clipalign import Objective


class UpsideDown(Objective):
    """Prefers the rejected text.

        loss = r(y_w) − r(y_l)

    Nobody, arXiv 0000.00000. Shapes: [B, C] → [B].
    """

    def forward(self, batch):
        loss = batch.log_ratio(batch.chosen) - batch.log_ratio(batch.rejected)
        return loss.masked_fill(~batch.pairs, 0.0)

    def initial_value(self, batch):
        return 0.0 * batch.policy[:, 0]
'''


def run(folder, *arguments, env):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture
def environment(make_package):
    import os

    make_package(
        "clipalign-down",
        """
        import clipalign

        @clipalign.hookimpl
        def register_objectives(register):
            register("down", "down_target:UpsideDown", summary="The wrong way.")
        """,
    )
    (make_package.folder / "down_target.py").write_text(UPSIDE_DOWN)
    return {**os.environ, **make_package.env}


def test_the_option_runs_the_contract_alone_and_finds_the_fault(tmp_path, environment):
    (tmp_path / "test_other.py").write_text("def test_other(): assert False\n")
    names = ("--clipalign-objective", "down", "--clipalign-objective", "dpo")
    done = run(tmp_path, *names, env=environment)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    (line,) = failed
    assert "test_a_small_step_from_the_reference_obeys_every_judgement[down]" in line
    assert done.returncode == 1

    done = run(tmp_path, "--clipalign-objective", "dwn", env=environment)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "There is no objective 'dwn'. Did you mean 'down'" in done.stderr


def test_an_objective_that_does_not_load_is_said_once(tmp_path, environment, make_package):
    (make_package.folder / "down_target.py").write_text("")
    done = run(tmp_path, "--clipalign-objective", "down", env=environment)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "cannot be loaded from down_target:UpsideDown" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_without_the_option_it_costs_nothing(tmp_path, environment):
    (tmp_path / "test_light.py").write_text(
        "import sys\n"
        "def test_light():\n"
        "    assert 'clipalign.testing.plugin' in sys.modules\n"
        "    assert not {'torch', 'numpy', 'pydantic', 'pluggy.x'} & set(sys.modules)\n"
    )
    done = run(tmp_path, "-p", "no:hypothesispytest", "test_light.py", env=environment)
    assert done.returncode == 0, done.stdout
