"""A network on its device: built, loaded, and how much memory it takes."""
