"""For whoever runs cities: what they will cost and did cost, what a site lacks, what may be cleaned up."""
