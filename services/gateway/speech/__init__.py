"""How does a text become speech? The gateway's door to voices that speak."""
