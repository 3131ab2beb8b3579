// share, within a function: element i of what was loaded as part0, part1, …; alone, part i itself.
let b{i} = part{i};
