"""A network on its device: built or loaded, and how much memory it takes. `corpus.generate` imports this wing too."""
