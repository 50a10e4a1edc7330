"""What did the admin panel's training tab ask before there was this API? The same addresses, over the same code."""
