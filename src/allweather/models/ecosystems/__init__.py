"""Networks that other libraries build; each library is imported when one of its networks is asked for."""
