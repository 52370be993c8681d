"""Faults and hostile input thrown at the real commands, and a count of what was lost.

    python -m tests.campaign --list
    python -m tests.campaign --long -o campaign          # hours; goes on where it stopped
    python -m tests.campaign 'kill train' --trials 20 -o campaign
    python -m tests.campaign --report -o campaign        # the table of what was recorded

A case is a function that does one thing to clipalign and returns when all went as it should; it
raises `Broken` when not. `cases.py` says how to write one. The short form of every case runs with
the other tests (`test_campaign.py`).
"""
