"""One test for each clause of PEP 3333, ASGI and the RFCs that they build on, for any adapter and any server.

pytest --pyargs wsgi_asgi_conformance --wsgi-to-asgi MODULE:CLASS --asgi-to-wsgi MODULE:CLASS
"""

import pytest

clause = pytest.mark.clause
