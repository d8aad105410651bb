"""`bridge check`: what an app is, how to serve it, and whether it works through an adapter and in several threads."""
