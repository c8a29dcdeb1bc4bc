"""How each embedded model is pre-trained: one recipe a file, and the loop they share."""
