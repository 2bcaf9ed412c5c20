"""Apps: the decorators that turn a function into one whose calls run elsewhere and give futures."""
