"""What the specs say. Rule 1: all of it lives here. Rule 2: nothing here waits.

No thread, loop, socket or clock: a function that needs one belongs to a room next door.
"""
