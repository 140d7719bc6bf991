"""Few labelled pictures, many others: classes with their probabilities, and how far one can trust them.

Nothing is trained here beyond a head on frozen features, and nothing is written but the cache of features.

gathering          which pictures are the support and the queries, with their classes
feature_source     the network that turns pictures into features: a file of weights, a run, or random weights
run_features       a run as such a network
pictures           all pictures of a call as arrays
scaling            features on one scale, at length 1
centroids          the nearest class mean, in closed form, and what it is without one example
softmax_regression logistic regression, by a solver of our own, with all its refits in one program
heads              a head of each method: its scores, and its scores for what it has not seen
temperature        scores become probabilities
left_out           accuracy on what was left out, its interval, and the confusions
novelty            the distance above which a picture is of no class of the support
suggestions        the pictures that are worth a label next
labels_to_give     the list in which somebody writes these labels
classification     all of this, one after the other
outcome            the types of what comes out
summary            it, for JSON and CSV
"""
