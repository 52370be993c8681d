"""`python -m clipalign`, so that `torchrun -m clipalign train …` works."""

from clipalign.cli.app import main

if __name__ == "__main__":
    main()
