"""One test for each clause of PEP 3333, ASGI and the RFCs they build on, run against any adapter.

pytest --pyargs wsgi_asgi_conformance --wsgi-to-asgi MODULE:CLASS --asgi-to-wsgi MODULE:CLASS
"""

import pytest

clause = pytest.mark.clause
