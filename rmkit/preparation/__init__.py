"""The prepare stage: how raw records become rows or refusals, and the folder that holds both."""
