"""`bridge diff`: play the same requests to two apps, and show where their answers differ."""
