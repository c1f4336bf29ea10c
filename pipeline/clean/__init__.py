"""From text to clean text: rules, boilerplate, personal data, quality. Pure."""
