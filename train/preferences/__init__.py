"""Learning from rankings: comparisons and episodes, the networks of reward model, PPO and DPO, figures and floors."""
