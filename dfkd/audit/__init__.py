"""Is a teacher trapped? Looks at the teacher alone, without any data, and a verdict with its reasons."""

from dfkd.audit.looks import Effort, Looks, look

__all__ = ["Effort", "Looks", "look"]
