"""The search that starts from a trained model: stand-ins fitted in closed form, chosen under a hard budget."""
