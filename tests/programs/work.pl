# Hashes, regular expressions and sorting for a while; the same lines in every run.
use strict;
use warnings;
$| = 1;
my (%count, $state);
$state = 1;
for my $round (1 .. 150) {
    for (1 .. 20000) {
        $state = ($state * 1103515245 + 12345) & 0x7fffffff;
        my $word = sprintf("w%d", $state % 5000);
        $count{$word}++;
        $count{$1}++ if $word =~ /^w(\d)\d*7$/;
    }
    my $sum = 0;
    $sum = ($sum * 31 + $count{$_}) % 1000003 for sort keys %count;
    print "round $round $sum\n";
}
