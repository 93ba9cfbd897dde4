"""Small graphs of the kinds that resident graphs are made of, to try a GPU with."""
