"""`bridge diff`: the same requests to two apps, and what is different in their answers."""
