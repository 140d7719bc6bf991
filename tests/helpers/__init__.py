"""What several tests share. No test lies here, and no test file imports another."""
