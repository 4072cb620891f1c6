"""From what a caller gives to what is planned and priced: arguments checked, defaults chosen and noted."""
