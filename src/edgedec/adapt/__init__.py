"""Train, on a user's text and with a frozen base, what depth policies need (extra ``[torch]``).

torch is imported inside functions only, so that importing this package costs nothing.
"""
