"""What the specs say. Rule 1: all of it is here. Rule 2: nothing here waits.

There is no thread, loop, socket or clock here. A function that needs one belongs in another package of `bridge`.
"""
