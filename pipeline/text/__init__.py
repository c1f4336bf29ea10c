"""Unicode code points, normalization and n-grams of many texts at once: pure, numpy alone."""
