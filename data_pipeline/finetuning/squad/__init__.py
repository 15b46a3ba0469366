"""SQuAD: questions, windows over contexts, answers and scores."""
