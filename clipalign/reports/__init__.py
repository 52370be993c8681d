"""What people read: tables made of results files, and of nothing else."""
