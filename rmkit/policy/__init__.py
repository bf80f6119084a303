"""Training a policy against a judge: its prompts, and what the scripts of TRL's trainers share."""
