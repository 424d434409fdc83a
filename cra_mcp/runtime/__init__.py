"""The runtime: all that a face may use."""

from cra_mcp.runtime.runtime import Runtime

__all__ = ["Runtime"]
