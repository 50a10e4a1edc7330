"""How does a recording become another voice's? The gateway's door to inference."""
