"""Is a teacher trapped? Looks at the teacher alone, without any data, and a verdict with its reasons.

May be imported by dfkd.defenses and later rooms.
"""

from dfkd.audit.effort import Effort
from dfkd.audit.looks import LOOKS, Looks, look, why_not
from dfkd.audit.page import headline, page
from dfkd.audit.verdict import Verdict, judge

__all__ = ["LOOKS", "Effort", "Looks", "Verdict", "headline", "judge", "look", "page", "why_not"]
