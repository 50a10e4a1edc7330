"""How are long recordings and whole folders given another voice? As jobs, with a result for each recording."""
