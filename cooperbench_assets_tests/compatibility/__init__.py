"""What an earlier release left on disk is read by the code of today: nobody loses results by an upgrade."""
