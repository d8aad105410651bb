"""Phusion Passenger loads this file by its path, and serves the object named `application`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository root; Passenger adds only this folder

from examples.fastapi_on_gunicorn.app import wsgi_app as application

__all__ = ["application"]
