"""The judge as an HTTP server: `python -m rmkit.server --judge DIR`."""
