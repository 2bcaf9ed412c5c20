"""Blocks as the scaling code sees them: their states, the poller, the strategies and the error handlers."""
