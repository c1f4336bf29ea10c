"""Learning from rankings: batches of comparisons, the networks of reward model and DPO, figures and floors."""
