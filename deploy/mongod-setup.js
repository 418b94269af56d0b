// Initiates a replica set with one member and creates its users. Runs in mongosh, connected over the
// loopback of the mongod itself. Idempotent.
//
// A new database has no password: as long as it has no user, it accepts the first one only over its
// own loopback.

const folder = process.env.MONGOD_SECRETS;
const host = process.env.MONGOD_HOST;
const admin = db.getSiblingDB('admin');
const WRONG_CREDENTIALS = 18;
const PRIMARY_WAIT_MAX_S = 60;

const password = (user) => fs.readFileSync(`${folder}/${user}.password`, 'utf8').trim();

function rootLogsIn() {
  try {
    return admin.auth('root', password('root')).ok === 1;
  } catch (error) {
    if (error.code === WRONG_CREDENTIALS) return false;
    throw error;
  }
}

function awaitPrimary() {
  for (let s = 0; s < PRIMARY_WAIT_MAX_S; s += 1) {
    if (db.hello().isWritablePrimary) return;
    sleep(1000);
  }
  throw new Error(`mongod is not a primary after ${PRIMARY_WAIT_MAX_S} s`);
}

function put(user, roles) {
  const settings = { pwd: password(user), roles, mechanisms: ['SCRAM-SHA-256'] };
  if (admin.getUser(user) === null) {
    admin.createUser({ user, ...settings });
  } else {
    admin.updateUser(user, settings);
  }
}

if (!rootLogsIn()) {
  try {
    rs.initiate({ _id: 'rs0', members: [{ _id: 0, host }] });
  } catch (error) {
    if (error.codeName !== 'AlreadyInitialized') throw error;
  }
  awaitPrimary();
  admin.createUser({
    user: 'root',
    pwd: password('root'),
    roles: ['root'],
    mechanisms: ['SCRAM-SHA-256'],
  });
  admin.auth('root', password('root'));
}
awaitPrimary();
// The projector writes the views, query-api only reads them; neither can access another database.
put('projector', [{ role: 'readWrite', db: 'roster' }]);
put('query-api', [{ role: 'read', db: 'roster' }]);
// Each peer service has its own database.
for (const file of fs.readdirSync(folder)) {
  const service = file.match(/^([a-z][a-z0-9]*)-service\.password$/);
  if (service) put(`${service[1]}-service`, [{ role: 'readWrite', db: service[1] }]);
}
print('the replica set and its users are set up');
