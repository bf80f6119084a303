"""Training a judge: examples, batches, the loss at the head, the trainer."""
