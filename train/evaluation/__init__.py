"""How well a model predicts documents: loss, perplexity, bits per character."""
