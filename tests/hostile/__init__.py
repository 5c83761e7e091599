"""Pickles and zip archives that would like to run code, or to fill the memory."""
