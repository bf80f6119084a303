"""Scoring files: what is judged, the folder of its scores, on one machine or many, and the best of n."""
