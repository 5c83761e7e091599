"""Text to ids and offsets, over the tokenizers package: its files, and what is read with them."""
