"""What `scripts/reproduce.py` trains, at which rates, and the table of what came out."""
