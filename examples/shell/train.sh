#!/bin/sh
# Fits y = 2 x - 1 to noisy points by stochastic gradient descent with momentum, in awk.
# Prints a line after each epoch, the last of which is the result:  epoch 3 loss 0.25
#
#     sh train.sh RATE MOMENTUM BATCH
exec awk -v rate="$1" -v momentum="$2" -v batch="$3" 'BEGIN {
    srand(1)
    points = 256
    for (i = 0; i < points; i++) {
        x[i] = 2 * rand() - 1
        y[i] = 2 * x[i] - 1 + 0.1 * (rand() - 0.5)
    }
    for (epoch = 0; epoch < 10; epoch++) {
        for (start = 0; start < points; start += batch) {
            slope = shift = 0
            for (i = start; i < start + batch && i < points; i++) {
                error = a * x[i] + b - y[i]
                slope += error * x[i] / batch
                shift += error / batch
            }
            va = momentum * va - rate * slope; a += va
            vb = momentum * vb - rate * shift; b += vb
        }
        loss = 0
        for (i = 0; i < points; i++) loss += (a * x[i] + b - y[i]) ^ 2 / points
        if (!(loss < 1e9)) { print "it diverges"; exit 1 }
        print "epoch", epoch, "loss", loss
        fflush()
    }
}'
