"""
A project that follows the documentation of Django, DRF and simplejwt, for comparison.

Rotation and blacklist are enabled, connections are persistent, and lists are pages with a count.
All other settings are defaults.
"""
